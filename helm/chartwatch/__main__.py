"""`make dashboards` writes the dashboards; `--show` lists their panels; `--fetch` gets Prometheus and promtool."""

import argparse
import sys

from chartwatch import boards, checks, debian


def main(argv: list[str]) -> int:
    """Write, show or fetch; without a choice, check. Exit status 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="chartwatch", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help="write the dashboards anew")
    choice.add_argument("--show", action="store_true", help="list rows, panels and queries")
    choice.add_argument("--fetch", action="store_true", help="Debian's Prometheus into .onstream/tools")
    args = parser.parse_args(argv)
    if args.show:
        _show()
        return 0
    try:
        if args.fetch:
            print(f"{debian.prometheus()}\n{debian.promtool()}")
            return 0
        if args.write:
            for path, text in boards.outputs().items():
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
        faults = list(checks.faults())
    except debian.ToolError as exc:
        faults = [str(exc)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def _show() -> None:
    for row in boards.ROWS:
        print(row.title)
        for panel in row.panels:
            print(f"  {panel.title} [{panel.unit.value}, {panel.look.value}]: {panel.about}")
            for query in panel.queries:
                print(f"    {query.legend:40} {query.expr}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
