from tests.flow_checkout import checkout, in_checkout

__all__ = ["checkout", "in_checkout"]
