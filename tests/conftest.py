"""What holds for all tests."""

import signal

# A suite that a shell started in the background ignores SIGINT, and so would every process that it
# starts to interrupt: a handler of our own is not handed on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
