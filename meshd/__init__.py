"""meshd: a mesh of daemons that share one list of inference servers between gateways.

The rooms, from the top: `testing`, `main`, `cli` | `api` | `bridges`, `discovery` and the worker loops,
`runtime`, `protocol` and `storage`, the pure worker files, `wire`, `config` and `errors`, and below them
all the package `crdt`. Imports point down only. ARCHITECTURE.md beside this file says why each room is as
it is.
"""

__version__ = "0.1.0"
