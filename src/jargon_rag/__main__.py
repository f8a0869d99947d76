"""Run the command line as `python -m jargon_rag`."""

from jargon_rag.cli import app

app(prog_name="jargon-rag")
