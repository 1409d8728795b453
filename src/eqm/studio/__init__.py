"""The studio: a page in the browser, served by `eqm serve`."""
