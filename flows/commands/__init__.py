"""Commands, by what they are for: each checks its arguments, calls one function, and prints what it gives."""
