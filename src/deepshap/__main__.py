"""``python -m deepshap`` is the command ``deepshap``."""

from .cli import main

main()
