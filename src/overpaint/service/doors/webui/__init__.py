"""The reference's API, /sdapi/v1 and /internal."""
