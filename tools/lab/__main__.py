#!/usr/bin/env python3
"""The commands behind `make`: bring a lab up, look at it, take it down.

Runs on the standard library alone, for `setup` has to work on a bare machine. `python3 tools/lab --help` lists the
commands; each is a step that also works by hand (README, "Step by step").
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import clean
import machine
import pipeline
import reset
import screen
import targets
import ui
from context import Context, LabError

# GNU tar writes to the file that $TAPE names: a variable of that name must never reach a program that calls tar.
VARIABLES = {"tape": "TAPE_FILE"}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target",
        default=os.environ.get("TARGET") or "",
        help="where nodes come from: lxd, libvirt or aws (by default the lab's; for a new one libvirt where KVM works)",
    )
    parser.add_argument("--lab", default=os.environ.get("LAB") or "lab", help="name of the lab (default: lab)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="from a bare machine to rows in both tables")
    # An option that is not given keeps what the lab was last brought up with.
    for option, text in (
        ("topology", "a file of terraform/topologies (small)"),
        ("subnet", "the lab's IPv4 network, in CIDR notation (a /24 of 10.64.0.0/10 by the lab's name)"),
        ("source", "coinbase_rest, coinbase_ws or tape (coinbase_rest)"),
        ("feed", "coinbase, replay, or auto: the replay where Coinbase cannot be reached (auto)"),
        ("tape", "a recorded feed (NDJSON) for the source tape or the replay"),
        ("speed", "multiple of the tape's own pace (1)"),
        ("monitoring", "on or off: Prometheus, its alerts, and what they read (on)"),
        ("ssh_cidr", "for aws: the network from which the bastion takes SSH"),
        ("airflow", "on or off: whether the lab has Airflow (on)"),
    ):
        up.add_argument(f"--{option}", default=os.environ.get(VARIABLES.get(option, option.upper())) or None, help=text)
    up.add_argument(
        "--confirm", default=os.environ.get("CONFIRM") or None, help="the lab's name: it may cost money (aws)"
    )
    up.add_argument("--expect-unchanged", action="store_true", help="fail when anything had to be changed")

    setup = commands.add_parser("setup", help="install what is missing on this machine")
    setup.add_argument(
        "--tests", action="store_true", help="also what only the tests need (PostgreSQL, promtool, Chromium)"
    )
    commands.add_parser("venv", help="only the Python environment .venv")
    image = commands.add_parser("image", help="provide the node image")
    commands.add_parser("artifacts", help="fetch what the nodes need")
    nodes = commands.add_parser("nodes", help="only make nodes, in any mix of groups")
    nodes.add_argument("--topology", required=True, help="a file in the form of terraform/topologies")
    for command in (up, image, nodes):
        for option, text in (
            ("image", "for virtual machines: debian (its cloud image) or built (from packages, here) (debian)"),
            ("virtualization", "kvm or qemu, for virtual machines (kvm where it works, else qemu)"),
        ):
            command.add_argument(f"--{option}", default=os.environ.get(option.upper()) or None, help=text)
    commands.add_parser("status", help="nodes, services, rows")
    ssh = commands.add_parser("ssh", help="log in to a node")
    ssh.add_argument("node", help="for example kafka-1")
    ssh.add_argument("remote", nargs=argparse.REMAINDER, help="a command to run there")
    psql = commands.add_parser("psql", help="a psql session in crypto_db, or one query")
    psql.add_argument("query", nargs="?", default=os.environ.get("Q", ""), help="SQL to run instead of a session")
    commands.add_parser("topics", help="describe the topics and the newest offsets")
    commands.add_parser("ui", help="the lab's web pages on this machine's ports, through SSH")
    commands.add_parser("ui-stop", help="close what `ui` has opened")
    commands.add_parser("audit", help="compare producer, topic and both tables, event by event")
    again = commands.add_parser("reset", help="begin an engine, the topic, or the whole pipeline anew")
    again.add_argument("--service", default=os.environ.get("SERVICE") or None, help=", ".join(reset.SERVICES))
    again.add_argument("--confirm", default=os.environ.get("CONFIRM") or None, help="the lab's name, once more")
    commands.add_parser("down", help="remove this lab's nodes; artifacts and image are kept")
    commands.add_parser("clean", help="remove every lab of this folder, the image and the artifacts")
    return parser.parse_args(arguments)


def main() -> int:  # noqa: C901 - one case for each command
    """Run one command; returns the exit code."""
    options = parse(sys.argv[1:])
    try:
        context = Context(target=options.target, lab=options.lab)
        match options.command:
            case "setup":
                targets.setup(context)
                if options.tests:
                    machine.install_test_packages()
            case "venv":
                machine.make_virtual_environment()
            case "up":
                pipeline.up(context, options)
            case "image":
                pipeline.complete_options(context, options)
                pipeline.image(context, options)
            case "artifacts":
                pipeline.artifacts(context)
            case "nodes":
                pipeline.nodes(context, options)
            case "status":
                return screen.status(context)
            case "ssh":
                screen.ssh(context, options.node, options.remote)
            case "psql":
                screen.psql(context, options.query)
            case "topics":
                screen.topics(context)
            case "ui":
                nodes = screen.inventory(context)
                ui.up(context, screen.served_pages(nodes, screen.service_states(context, nodes)))
            case "ui-stop":
                ui.stop(context)
            case "audit":
                return screen.audit(context)
            case "reset":
                reset.reset(context, options)
            case "down":
                clean.down(context)
            case "clean":
                clean.clean(context)
    except LabError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Of `make status | head`; what is left is not flushed into it at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        again = f"make reset LAB={options.lab} ..." if options.command == "reset" else f"make lab LAB={options.lab}"
        print(f"\nInterrupted. `{again}` goes on from here, `make down LAB={options.lab}` cleans up.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
