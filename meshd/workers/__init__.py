"""Workers: what they are, who owns them, how well they are, and how the mesh shares them.

The pure files (`model`, `urls`, `record`, `worker`, `claims`, `registry`, `index`, `events`, `decide`,
`core`, `sync`, `commands`, `plane`, and the health machine with its schedule and capacity) are given the time
and do no I/O; `plane.WorkerPlane` composes them. The `*_loop` files drive that plane with trio.
"""
