"""The wire between daemons. `*_pb2*` files are made by protos/generate.sh: never edit them."""
