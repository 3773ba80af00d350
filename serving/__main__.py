"""`python -m serving engine --id NAME | router | rollout`, each with `--config onstream.yaml`."""

import argparse
import sys

from infra import cli, telemetry
from infra.config import Config


def main(argv: list[str]) -> int:
    """Run one serving process until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument("role", choices=("engine", "router", "rollout"))
    parser.add_argument("--id", help="which engine of the configuration (role engine only)")
    cli.add_config(parser)
    args = parser.parse_args(argv)
    if (args.role == "engine") != bool(args.id):
        parser.error("--id NAME goes with the role engine, and only with it")

    def run(config: Config) -> None:
        telemetry.setup(args.role, args.id or "")
        if args.role == "engine":
            from serving.engine import process as engine

            engine.run(config, args.id)
        elif args.role == "router":
            from serving.router import process as router

            router.run(config)
        else:
            from serving.rollout import process as rollout

            rollout.run(config)

    return cli.guarded(args.config, run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
