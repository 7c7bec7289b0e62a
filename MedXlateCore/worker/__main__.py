"""Entry of the worker process."""

import sys

from MedXlateCore.worker.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
