"""The gRPC server: batching, hot reload, health and metrics round `core`'s retriever."""
