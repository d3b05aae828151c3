"""Who gets in, with real handshakes: keys of other machines, the owner, workers, and everybody else."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from focus_backend.serving.authentication import OWNER, REMOTE, WORKER, Authenticator, ClientKeys, protect
from focus_backend.serving.keys import KeyFolder

# Guards against hanging; nothing below waits for it to pass.
_PATIENCE = 20
_ENDS = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "in",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "no handshake",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "no handshake",
}


class Gate:
    """A protected ROUTER with its authenticator, both served by the test's own loop."""

    def __init__(self, folder: KeyFolder, domain: str = REMOTE, tokens: dict[int, bytes] | None = None, guarded: bool = True) -> None:
        self.context = zmq.Context()
        self.folder = folder
        self.clients = ClientKeys(folder.path)
        self.events: list[tuple[str, dict]] = []
        self.tokens = tokens or {}
        self.authenticator = None
        if guarded:
            self.authenticator = Authenticator(self.context, clients=self.clients, worker_tokens=lambda: self.tokens, log=self._log)
        self.server = self.context.socket(zmq.ROUTER)
        protect(self.server, domain, None if domain == WORKER else folder.server_keys())
        self._monitor = self.server.get_monitor_socket(sum(_ENDS))
        self.server.bind("tcp://127.0.0.1:0")
        self.address = self.server.last_endpoint.decode()
        self._sockets = [self.server, self._monitor]

    def _log(self, event: str, **fields) -> None:
        self.events.append((event, fields))

    def serve_until(self, is_done) -> None:
        """Answers whoever asks until `is_done()`."""
        end = time.monotonic() + _PATIENCE
        while not is_done():
            assert time.monotonic() < end, "nothing happened"
            if self.authenticator is not None:
                self.authenticator.socket.poll(5)
                self.authenticator.answer()
            else:
                self._monitor.poll(5)

    def connect(self, **options) -> tuple[zmq.Socket, str]:
        """A client with these options that says hello, and how its handshake ended."""
        client = self.context.socket(zmq.DEALER)
        self._sockets.append(client)
        client.linger = 0
        client.reconnect_ivl = -1
        for name, value in options.items():
            setattr(client, name, value)
        client.connect(self.address)
        # Where the handshake failed already there is nobody to send to.
        with contextlib.suppress(zmq.Again):
            client.send(b"hello", zmq.NOBLOCK)
        self.serve_until(lambda: self._monitor.poll(0))
        return client, _ENDS[recv_monitor_message(self._monitor)["event"]]

    def with_key(self, content: dict) -> tuple[zmq.Socket, str]:
        """A client with a key file."""
        return self.connect(
            curve_serverkey=content["server_key"].encode(),
            curve_publickey=content["public_key"].encode(),
            curve_secretkey=content["secret_key"].encode(),
        )

    def with_any_key(self) -> tuple[zmq.Socket, str]:
        """A client with a key that nobody knows."""
        public, secret = zmq.curve_keypair()
        return self.connect(curve_serverkey=self.folder.server_keys()[0].encode(), curve_publickey=public, curve_secretkey=secret)

    def user_of_next(self) -> str:
        """Who sent the next message."""
        assert self.server.poll(1000 * _PATIENCE)
        frame = self.server.recv_multipart(copy=False)[-1]
        assert frame.bytes == b"hello"
        return frame.get("User-Id")

    def close(self) -> None:
        """Closes everything, so that the context can end."""
        self.server.disable_monitor()
        for socket in self._sockets:
            socket.close(linger=0)
        if self.authenticator is not None:
            self.authenticator.close()
        # Whatever a failed test left open must not keep it from ending.
        self.context.destroy(linger=0)


@pytest.fixture
def gate(tmp_path):
    """Makes gates, and closes them."""
    made = []

    def make(*arguments, **options) -> Gate:
        made.append(Gate(KeyFolder(tmp_path / "keys"), *arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_listed_key_is_in_under_its_name(gate):
    remote = gate()
    _, end = remote.with_key(remote.folder.new("anna"))
    assert end == "in"
    assert remote.user_of_next() == "anna"


def test_an_unknown_key_is_out(gate):
    remote = gate()
    remote.folder.new("anna")
    assert remote.with_any_key()[1] == "refused"
    assert not remote.server.poll(0)
    # A key of another server's folder is as unknown.
    event, fields = remote.events[-1]
    assert (event, fields["reason"]) == ("connection-refused", "unknown or revoked key")


def test_a_key_made_while_the_server_runs_is_in(gate):
    remote = gate()
    assert remote.with_any_key()[1] == "refused"
    assert remote.with_key(remote.folder.new("late"))[1] == "in"


def test_a_revoked_key_is_out_at_once(gate):
    remote = gate()
    anna, zoe = remote.folder.new("anna"), remote.folder.new("zoe")
    assert [remote.with_key(each)[1] for each in (anna, zoe)] == ["in", "in"]
    assert {remote.user_of_next(), remote.user_of_next()} == {"anna", "zoe"}
    assert remote.clients.is_allowed("anna")
    remote.folder.revoke("anna")
    assert not remote.clients.is_allowed("anna")
    assert remote.clients.is_allowed("zoe")
    assert remote.with_key(anna)[1] == "refused"
    assert remote.with_key(zoe)[1] == "in"


def test_the_owner_is_in_with_any_key(gate):
    owner = gate(OWNER)
    assert owner.with_any_key()[1] == "in"
    assert owner.user_of_next() == "owner"


@pytest.mark.parametrize("domain", [OWNER, REMOTE])
def test_clients_without_curve_are_out(gate, domain):
    curve = gate(domain)
    assert curve.connect()[1] == "no handshake"
    assert curve.connect(plain_username=b"owner", plain_password=b"x")[1] == "no handshake"
    assert not curve.server.poll(0)


def test_a_client_that_takes_the_server_for_another_is_out(gate):
    owner = gate(OWNER)
    public, secret = zmq.curve_keypair()
    other = zmq.curve_keypair()[0]
    assert owner.connect(curve_serverkey=other, curve_publickey=public, curve_secretkey=secret)[1] == "no handshake"


def test_workers_need_their_own_token(gate):
    tokens = {1: b"a" * 64, 2: b"b" * 64, 3: b""}
    workers = gate(WORKER, tokens)
    assert workers.connect(plain_username=b"1", plain_password=tokens[1])[1] == "in"
    assert workers.user_of_next() == "1"
    for user, token in ((b"1", tokens[2]), (b"1", tokens[1][:-1]), (b"4", tokens[1]), (b"3", b"x"), (b"01", tokens[1])):
        assert workers.connect(plain_username=user, plain_password=token)[1] == "refused", (user, token)
    # A worker that was replaced is out.
    replaced = workers.tokens.pop(1)
    assert workers.connect(plain_username=b"1", plain_password=replaced)[1] == "refused"
    assert workers.connect()[1] == "no handshake"
    assert not workers.server.poll(0)


@pytest.mark.parametrize("domain", [OWNER, REMOTE, WORKER])
def test_nobody_is_in_without_an_authenticator(gate, domain):
    alone = gate(domain, guarded=False)
    if domain == WORKER:
        end = alone.connect(plain_username=b"1", plain_password=b"x")[1]
    else:
        end = alone.with_any_key()[1]
    assert end != "in"
    assert not alone.server.poll(0)


def test_the_log_holds_no_secrets(gate):
    remote = gate()
    anna = remote.folder.new("anna")
    remote.with_key(anna)
    remote.with_any_key()
    workers = gate(WORKER, {1: b"token" * 8})
    workers.connect(plain_username=b"1", plain_password=b"token" * 8)
    workers.connect(plain_username=b"1", plain_password=b"guess" * 8)
    shown = str(remote.events + workers.events)
    assert "anna" in shown
    assert "127.0.0.1" in shown
    for secret in (anna["secret_key"], anna["public_key"], "tokentoken", "guessguess"):
        assert secret not in shown


def test_a_flood_of_refusals_does_not_fill_the_log(gate, monkeypatch):
    remote = gate()
    stranger = remote.context.socket(zmq.DEALER)
    stranger.connect("inproc://zeromq.zap.01")
    for _ in range(200):
        stranger.send_multipart([b"", b"1.0", b"1", b"remote", b"10.0.0.1", b"", b"CURVE", bytes(32)])
    while remote.authenticator.answer():
        pass
    assert len(remote.events) == 20
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    stranger.send_multipart([b"", b"1.0", b"1", b"remote", b"10.0.0.1", b"", b"CURVE", bytes(32)])
    while remote.authenticator.answer():
        pass
    assert [event for event, _ in remote.events[20:]] == ["refusals-not-logged", "connection-refused"]
    assert remote.events[20][1]["count"] == 180
    stranger.close(linger=0)


_FRAMES = st.lists(
    st.sampled_from([b"", b"1.0", b"1", b"remote", b"owner", b"worker", b"CURVE", b"PLAIN", b"NULL", b"\xff", bytes(32)])
    | st.binary(max_size=300),
    min_size=1,
    max_size=14,
)


def test_odd_questions_break_nothing(gate):
    remote = gate()
    stranger = remote.context.socket(zmq.DEALER)
    stranger.connect("inproc://zeromq.zap.01")

    @settings(max_examples=300, deadline=None)
    @given(_FRAMES)
    def ask(frames):
        stranger.send_multipart(frames)
        assert remote.authenticator.socket.poll(1000 * _PATIENCE)
        assert remote.authenticator.answer()
        while stranger.poll(0):
            answer = stranger.recv_multipart()
            # The owner's domain alone takes any key.
            owner = frames[-2:-1] == [b"CURVE"] and b"owner" in frames
            assert answer[-4] == b"400" or owner

    ask()
    # A peer that leaves before it is answered.
    stranger.send_multipart([b"", b"1.0", b"1", b"remote", b"::1", b"", b"CURVE", bytes(32)])
    stranger.close(linger=0)
    while remote.authenticator.answer():
        pass
    assert remote.with_key(remote.folder.new("anna"))[1] == "in"


def test_nothing_waiting_is_no_answer(gate):
    assert not gate().authenticator.answer()


def _raw(content: dict) -> bytes:
    return z85.decode(content["public_key"])


@pytest.fixture
def folder(tmp_path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def test_no_folder_lets_nobody_in(folder):
    clients = ClientKeys(folder.path)
    assert clients.name_of(bytes(32)) is None
    assert not clients.is_allowed("anna")


@pytest.mark.parametrize("size", [0, 31, 33, 40])
def test_keys_of_another_size(folder, size):
    folder.new("anna")
    assert ClientKeys(folder.path).name_of(bytes(size)) is None


def test_damaged_files_let_nobody_in_and_harm_nobody(folder):
    anna, zoe = folder.new("anna"), folder.new("zoe")
    clients = ClientKeys(folder.path)
    assert clients.name_of(_raw(anna)) == "anna"
    (folder.clients / "anna.json").write_text("{")
    (folder.clients / "notes.txt").write_text("mine")
    (folder.clients / "sub.json").mkdir()
    assert not clients.is_allowed("anna")
    assert clients.name_of(_raw(anna)) is None
    assert clients.name_of(_raw(zoe)) == "zoe"


def test_a_file_edited_in_place_is_noticed(folder):
    anna = folder.new("anna")
    clients = ClientKeys(folder.path)
    assert clients.name_of(_raw(anna)) == "anna"
    path = folder.clients / "anna.json"
    with path.open("r+") as file:
        content = json.load(file) | {"revoked": "2026-01-01"}
        file.seek(0)
        json.dump(content, file)
        file.truncate()
    assert not clients.is_allowed("anna")


def test_a_removed_key_is_out(folder):
    anna = folder.new("anna")
    clients = ClientKeys(folder.path)
    assert clients.name_of(_raw(anna)) == "anna"
    (folder.clients / "anna.json").unlink()
    assert not clients.is_allowed("anna")
    assert clients.name_of(_raw(anna)) is None


def test_another_key_does_not_inherit_a_name(folder):
    old = folder.new("anna")
    clients = ClientKeys(folder.path)
    assert clients.name_of(_raw(old)) == "anna"
    (folder.clients / "anna.json").unlink()
    new = folder.new("anna")
    # Connections of the old key carry the name still.
    assert not clients.is_allowed("anna")
    assert clients.name_of(_raw(new)) is None
    assert ClientKeys(folder.path).name_of(_raw(new)) == "anna"


def test_a_copy_of_a_revoked_key_is_out(folder):
    anna = folder.new("anna")
    (folder.clients / "copy.json").write_bytes((folder.clients / "anna.json").read_bytes())
    folder.revoke("anna")
    assert ClientKeys(folder.path).name_of(_raw(anna)) is None


def test_files_are_read_again_only_when_they_changed(folder, monkeypatch):
    from focus_backend.serving import authentication

    anna = folder.new("anna")
    folder.new("zoe")
    clients = ClientKeys(folder.path)
    clients.name_of(_raw(anna))
    read = []
    reader = authentication.read_entry
    monkeypatch.setattr(authentication, "read_entry", lambda path: read.append(path.stem) or reader(path))
    for _ in range(3):
        assert clients.name_of(_raw(anna)) == "anna"
        assert clients.is_allowed("anna")
    assert read == []
    folder.revoke("zoe")
    assert clients.name_of(_raw(anna)) == "anna"
    assert read == ["zoe"]


def test_a_folder_that_cannot_be_read_lets_nobody_in(folder):
    anna = folder.new("anna")
    clients = ClientKeys(folder.path)
    assert clients.name_of(_raw(anna)) == "anna"
    folder.clients.rename(folder.path / "aside")
    folder.clients.write_text("no folder")
    assert not clients.is_allowed("anna")
    assert clients.name_of(_raw(anna)) is None
    assert ClientKeys(folder.path).name_of(_raw(anna)) is None


def test_files_with_odd_names_let_nobody_in(folder):
    anna = folder.new("anna")
    (folder.clients / "anna.json").rename(folder.clients / "owner.json")
    assert ClientKeys(folder.path).name_of(_raw(anna)) is None
