"""The option objects users write, under the names they know."""

from salver.schema.http import HTTPOptions, ProxyLocation
from salver.schema.options import AutoscalingConfig, BackpressureConfig, RequestRouterConfig

__all__ = ["AutoscalingConfig", "BackpressureConfig", "HTTPOptions", "ProxyLocation", "RequestRouterConfig"]
