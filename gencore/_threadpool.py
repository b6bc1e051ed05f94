"""Makes gencore's thread pool visible to threadpoolctl, where that is installed.

``threadpoolctl.threadpool_info()`` lists it (``user_api`` "gencore") and ``threadpool_limits(limits=1)`` limits it.
"""


def register() -> None:
    """Register a controller for libgencore with threadpoolctl."""
    try:
        from threadpoolctl import LibController, register
    except ImportError:
        return

    class GencoreController(LibController):  # type: ignore[misc]
        user_api = "gencore"
        internal_api = "gencore"
        filename_prefixes = ("libgencore",)
        check_symbols = ("gencore_get_num_threads", "gencore_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.gencore_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.gencore_set_num_threads(int(num_threads))

        def get_version(self) -> str:
            return self._text("gencore_get_version")

        def set_additional_attributes(self) -> None:
            self.isa = self._text("gencore_get_isa")

        def _text(self, symbol: str) -> str:
            import ctypes

            function = getattr(self.dynlib, symbol)
            function.restype = ctypes.c_char_p
            return str(function().decode())

    register(GencoreController)
