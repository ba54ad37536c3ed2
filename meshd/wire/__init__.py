"""What travels between nodes: bounded frames of msgpack, decoded into frozen messages.

`limits` holds every bound, `messages` the vocabulary, `codec` and `framing` turn bytes into messages
and back. Nothing here does I/O, and no input makes it raise anything but `WireError`.
"""
