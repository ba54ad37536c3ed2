"""The replicated map: pure data structures without I/O, clocks or randomness.

`crdt/ALGORITHM.md` states the rules and why they hold. The layers, bottom up: `types` (entries,
generations, vectors), `owner_log` (what one owner wrote), `delta` (what a peer lacks), `merge`
(an owner takes back what a former life of it wrote), `view` (the value that counts per key), and
`lww_map`, which holds all of them together.
"""
