"""The two programs people type: `meshd` (the daemon) and `meshctl` (what talks to it).

`meshctl` must start fast, since scripts and health checks call it often: nothing that it
imports may pull in trio, starlette, structlog or httpx (a test lists the imports). Only
`meshd_main` may, and only when `run` was asked for.
"""
