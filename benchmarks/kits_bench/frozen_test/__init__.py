"""The accuracy test that was frozen before training: 160 real anatomies, rendered the same way.

The label maps are KiTS19's (CC BY-NC-SA 4.0). Neither they nor anything rendered from them is part
of this project: whoever runs the test fetches them from the challenge. What is committed is a
configuration with the hash of each map and how it is rendered.
"""
