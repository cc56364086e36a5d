"""A scan that stays on a GPU: what lies there, how much at once, and the steps that keep it there.

``run`` decides where a run's arrays lie and ``plan`` how much is done at once; ``region``,
``windows`` and ``labels`` are the device's own ways of what ``steps``, ``infer`` and ``wayback`` do
on the host, with the same results.
"""
