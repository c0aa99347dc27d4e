"""The guard on a Ray cluster: datasets of Ray Data, and folders of files that outgrow one machine.

``moderate`` puts a guard into a pipeline of Ray Data. ``RayJob`` is ``guardrail filter --engine ray``.
"""

from guardrail.errors import MissingExtraError

try:
    import fsspec as fsspec
    import ray.data as ray_data
except ImportError as error:
    raise MissingExtraError(feature="guardrail on Ray", extra="ray") from error

from guardrail.integrations.ray.dataset import moderate
from guardrail.integrations.ray.job import RayJob

__all__ = ["RayJob", "moderate"]
del fsspec, ray_data, MissingExtraError
