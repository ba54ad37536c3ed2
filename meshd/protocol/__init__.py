"""The protocol without I/O: state machines that are told what happened and when, and answer with effects.

`node.MeshNode` composes the rest: `members` (who lives), `dialing` (whom to connect to), `session` (one
connection), `replication` (who is sent what), `ownership` (this node's own log and its lives), `forgetting`
(what becomes of dead owners). `now` is monotonic seconds, `wall_ms` is for display, `rng` is injected.
"""
