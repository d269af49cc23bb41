from tests.performed import items, library, scores_cache, scores_config

__all__ = ["items", "library", "scores_cache", "scores_config"]
