"""`python -m tests.campaign --seeds N [--first S] [--profile P]`: random lives of whole meshes.

Prints the trace of every seed that fails. Exit code 1 if any did.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import nullcontext

from tests.campaign.ablations import ABLATIONS
from tests.campaign.plan import PROFILES, run_seed


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run seeds and tell how they went."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--profile", choices=list(PROFILES))
    parser.add_argument("--ablate", choices=[one.name for one in ABLATIONS], help="without one rule")
    parser.add_argument("--quiet", action="store_true", help="name failing seeds without their traces")
    args = parser.parse_args()
    started = time.perf_counter()
    failed: list[int] = []
    messages = checks = 0
    events: Counter[str] = Counter()
    ablation = next((one for one in ABLATIONS if one.name == args.ablate), None)
    for seed in range(args.first, args.first + args.seeds):
        with nullcontext() if ablation is None else ablation.off():
            outcome = run_seed(seed, args.profile or (ablation.profile if ablation else None))
        messages += outcome.messages
        checks += outcome.checks
        events.update(outcome.events)
        if outcome.error:
            failed.append(seed)
            say(f"--- seed {seed} ({outcome.profile}): {outcome.error}")
            if not args.quiet:
                say("\n".join(outcome.trace))
    took_s = time.perf_counter() - started
    say(
        f"{args.seeds} seeds, {len(failed)} failed {failed[:20]}; {messages} messages, {checks} log states"
        f" checked; {took_s:.1f} s"
    )
    say(", ".join(f"{event} {count}" for event, count in events.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
