"""A whole mesh on one machine, to look at: `python -m meshd.demo`.

Three daemons and four small OpenAI-compatible servers run as separate processes on
loopback. This room uses only the standard library and the *installed* `meshd` program;
it imports no other room, so that what it shows is what a user gets. The end-to-end
tests and benchmarks start their processes with the same code.

- `openai_server`: the small inference server, a program of its own
- `children`, `guard`: child processes and folders that never outlive the program that made them
- `processes`: a `meshd` daemon or an inference server as a handle with start, wait and stop
- `client`: the few lines of HTTP that talk to both
- `story`: what `make demo` shows, scene by scene
"""
