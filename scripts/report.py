"""One page that says how good a run is and where it fails; or several side by side.

    python scripts/report.py runs/sdnet
    python scripts/report.py runs/unet runs/resnet34 --out both.html

Of one run it writes RUN/report.html anew, from the run folder alone. Exit codes:
0 done; 2 wrong input.
"""

import argparse
from pathlib import Path

import command_line


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page; of one run RUN/report.html, of several comparison.html",
    )
    options = parser.parse_args(arguments)

    from jaxseg.progress import console
    from jaxseg.report import run_page, side_by_side

    if len(options.runs) == 1:
        out = options.out or options.runs[0] / run_page.NAME
        text = run_page.report(run_page.read_run(options.runs[0]))
    else:
        out = options.out or Path("comparison.html")
        text = side_by_side.compare([run_page.read_run(path) for path in options.runs])
    run_page.write_page(out, text)
    console.print(f"- {out} is written", markup=False)


if __name__ == "__main__":
    command_line.main(run)
