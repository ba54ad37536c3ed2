"""Workers: what they are, who owns them, how well they are, and how the mesh shares them.

Pure files, which are given the time and do no I/O: what a worker is (`model`, `urls`, `record`, `worker`,
`sealing`); what is known of all of them (`registry`, `index`, `claims`, `events`); what is done about them
(`decide`, `core`, `publishing`, `sync`, `commands`, `why`); how well they are (`health_machine`,
`health_schedule`, `causes`, `capacity`, `capacity_tracker`). `plane.WorkerPlane` composes them, over the two
protocols of `store_view`. The `*_loop` files drive that plane with trio; the `check_*` files ask workers how
they are.
"""
