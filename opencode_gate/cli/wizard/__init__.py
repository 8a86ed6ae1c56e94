"""The wizard: the four questions (provider, key, model, ready) that come before a session.

The idea: it asks only what nobody could find out, and every screen is one keystroke from the
next. The invariant: nothing is written before the person starts the session on the last
screen, except a key they explicitly copy with a keystroke; Ctrl-C at any moment raises
`KeyboardInterrupt` and leaves no trace.

Import this package only when something is really asked: it loads prompt_toolkit.
"""

from opencode_gate.cli.wizard.flow import ask
from opencode_gate.cli.wizard.questions import ask_install, ask_subscription

__all__ = ["ask", "ask_install", "ask_subscription"]
