"""A gRPC application whose messages are bytes. Says its port, then what becomes of its streams.

Arguments: nothing, or the files of certificate and key and of the CA that has signed its clients.
"""

import json
import sys
from concurrent import futures

import grpc

BIN = b"\x00\xff detail"


def say(word):
    print(word, flush=True)


def trailers(context):
    context.set_trailing_metadata((("x-end", "of it"), ("x-detail-bin", BIN)))


def unary(request, context):
    context.send_initial_metadata((("x-begin", "of it"),))
    trailers(context)
    return request


def metadata(_, context):
    return json.dumps([key for key, _ in context.invocation_metadata()]).encode()


def fail(request, context):
    code, details = request.decode().split(" ", 1)
    trailers(context)
    context.abort(getattr(grpc.StatusCode, code), details)


def server_stream(request, context):
    count, size = map(int, request.split())
    for number in range(count):
        yield bytes([number % 256]) * size
    trailers(context)


def client_stream(requests, context):
    sizes = [len(request) for request in requests]
    trailers(context)
    return f"{len(sizes)} {sum(sizes)}".encode()


def bidi(requests, context):
    context.add_callback(lambda: say("over"))
    for request in requests:
        say("got " + request.decode())
        yield request
    trailers(context)


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
}


def main():
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(16), options=limits)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
    if len(sys.argv) > 1:
        cert, key, ca = (open(path, "rb").read() for path in sys.argv[1:])
        credentials = grpc.ssl_server_credentials([(key, cert)], ca, True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(port)
    # Until the test ends.
    sys.stdin.read()
    server.stop(None)


main()
