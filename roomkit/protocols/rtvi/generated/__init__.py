"""Generated from frames.proto: `python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. FILE`, with protoc 31."""
