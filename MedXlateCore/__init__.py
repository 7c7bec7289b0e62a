"""Missing-sequence synthesis for medical images. Research use only, not for diagnosis.

Importing this package loads numpy at most; torch is imported by the parts that need it, when they are used.
"""

__version__ = "0.1.0"
