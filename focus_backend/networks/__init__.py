"""The networks of FOCUS: encoder, segmentation, recognition, their files, and the decoder between them."""
