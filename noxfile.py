"""Sessions of nox: `nox -l` lists them.

All but `package` run in the environment in which nox was started, that of CONTRIBUTING.md: the ML
libraries are too large for an environment for each session.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "fast"]


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Run each check that runs before a commit."""
    session.run("pre-commit", "run", "--all-files")


@nox.session(venv_backend="none")
def fast(session: nox.Session) -> None:
    """Run the tests that need no model, no torch and no other process."""
    session.run("pytest", "-m", "fast", *session.posargs)


@nox.session(venv_backend="none")
def test(session: nox.Session) -> None:
    """Run all tests."""
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the documentation into `build/site`."""
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="none")
def package(session: nox.Session) -> None:
    """Build the package, install it in fresh environments, and let the demo answer (GBs, hours)."""
    session.run("python", "benchmarks/package.py", *session.posargs)
