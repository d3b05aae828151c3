"""The server that keeps the networks warm, and its clients, over ZeroMQ."""
