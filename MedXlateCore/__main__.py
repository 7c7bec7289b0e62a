"""``python -m MedXlateCore`` is the ``medxlate`` command."""

import sys

from MedXlateCore.cli import main

sys.exit(main())
