"""Sessions in environments of their own: the tests on each Python, lint, types, documentation and coverage.

    nox --list
    nox -s tests-3.12 -- tests/text
    nox -s tests            # each Python that is on this machine; one that is not is skipped and named

``make`` does the same in ``.venv``, with one Python. What is installed is pinned in constraints.txt.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def install(session: nox.Session) -> None:
    """Both packages at once, as in the Makefile: each requires the other in this tree's version."""
    session.install(
        "--constraint", "constraints.txt", "--editable", ".[dev]", "--editable", "training", silent=True
    )


def run_tests(session: nox.Session, *options: str) -> None:
    """Pytest with the arguments behind ``--``; without any, every test in two processes."""
    session.run("guardrail", "models", "pull")
    session.run(
        "python",
        "-m",
        "pytest",
        *options,
        *(session.posargs or ["--numprocesses", "2"]),
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Every test, or what is behind ``--``."""
    install(session)
    run_tests(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and layout."""
    session.install("--constraint", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy on the packages, and pyright on what users import."""
    install(session)
    session.run("mypy")
    session.run("python", "-m", "pytest", "tests/test_typing.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, built into site/; a warning is an error."""
    install(session)
    session.run("mkdocs", "build", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests of the runtime package, and whether they reach enough of its lines and branches."""
    install(session)
    run_tests(session, "--cov", "--cov-report=json:coverage.json", "--ignore=tests/training")
    session.run("python", "-m", "tests.coverage_gate", "coverage.json")
