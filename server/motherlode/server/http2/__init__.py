"""gRPC over HTTP/2 for asyncio: what stands between a socket and a method.

It does what a gRPC server has to do and no more: no server push, no priorities, no compressed
answers. Frames are those of RFC 9113, headers those of RFC 7541, and calls those of gRPC's "gRPC
over HTTP2". Decision 026 says why the server has its own.
"""
