"""A gRPC client that does what each line of its input says, and answers each with one line of JSON.

Arguments: the port, the file of the CA, the host; and the files of a certificate of its own and its key, if it has one.
"""

import json
import queue
import sys

import grpc

PORT, CA, HOST, *OWN = sys.argv[1:]
OPTIONS = [
    ("grpc.ssl_target_name_override", HOST),
    ("grpc.default_authority", f"{HOST}:{PORT}"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # What the gateway does is tested, not what the client does again.
    ("grpc.enable_retries", 0),
]


def fields(metadata):
    return {key: value if isinstance(value, str) else value.hex() for key, value in metadata or ()}


def outcome(call):
    return {
        "code": call.code().name,
        "details": call.details(),
        "begin": fields(call.initial_metadata()),
        "end": fields(call.trailing_metadata()),
    }


class Client:
    def __init__(self):
        cert, key = (open(path, "rb").read() for path in OWN) if OWN else (None, None)
        credentials = grpc.ssl_channel_credentials(open(CA, "rb").read(), key, cert)
        self.channel = grpc.secure_channel(f"127.0.0.1:{PORT}", credentials, OPTIONS)
        self.live = {}

    def unary(self, path, body="", metadata=(), timeout=30, size=0):
        message = body.encode() + b"x" * size
        method = self.channel.unary_unary(path)
        call = method.future(message, metadata=[tuple(pair) for pair in metadata], timeout=timeout)
        # Waits, whatever the end is.
        call.exception()
        answer = call.result().decode() if call.code() == grpc.StatusCode.OK else None
        return outcome(call) | {"body": answer if answer is None or len(answer) < 1000 else len(answer)}

    def server_stream(self, path, body, timeout=60):
        call = self.channel.unary_stream(path)(body.encode(), timeout=timeout)
        count = size = 0
        try:
            for message in call:
                count, size = count + 1, size + len(message)
        except grpc.RpcError:
            pass
        return outcome(call) | {"count": count, "size": size}

    def client_stream(self, path, count, size, timeout=60):
        messages = (b"x" * size for _ in range(count))
        call = self.channel.stream_unary(path).future(messages, timeout=timeout)
        call.exception()
        answer = call.result().decode() if call.code() == grpc.StatusCode.OK else None
        return outcome(call) | {"body": answer}

    def open(self, name, path, metadata=()):
        """A stream both ways that stays."""
        messages = queue.Queue()
        call = self.channel.stream_stream(path)(iter(messages.get, None), metadata=[tuple(pair) for pair in metadata])
        self.live[name] = (messages, call)
        return {}

    def say(self, name, body):
        messages, call = self.live[name]
        messages.put(body.encode())
        try:
            return {"body": next(call).decode()}
        except grpc.RpcError:
            return outcome(call)

    def wait(self, name):
        """Waits for the end of a stream."""
        _, call = self.live[name]
        try:
            for _ in call:
                pass
        except grpc.RpcError:
            pass
        return outcome(call)

    def done(self, name):
        messages, _ = self.live[name]
        messages.put(None)
        return self.wait(name)


def main():
    client = Client()
    for line in sys.stdin:
        what, arguments = json.loads(line)
        print(json.dumps(getattr(client, what)(**arguments)), flush=True)


main()
