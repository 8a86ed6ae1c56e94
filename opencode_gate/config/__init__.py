"""Where things lie and what the user set: file, then environment, then flag."""
