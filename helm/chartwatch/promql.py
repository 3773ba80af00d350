"""The few shapes that most of our queries have, each for the namespaces that the dashboard shows."""

from chartwatch.panels import Query

_HERE = 'namespace=~"$namespace"'
VERSION = "instance_version:onstream_engine_version:count"


def by(function: str, metric: str, *labels: str) -> str:
    """`function` over a metric by its labels; without a function the metric alone."""
    selected = f"{metric}{{{_HERE}}}"
    if not function:
        return selected
    return f"{function} by ({', '.join(labels)}) ({selected})" if labels else f"{function}({selected})"


def gauge(function: str, metric: str, *labels: str, legend: str = "") -> Query:
    """A state, over all processes."""
    return Query(by(function, metric, *labels), legend or _legend(labels))


def rate(metric: str, *labels: str, legend: str = "") -> Query:
    """A counter, a second."""
    grouped = f"sum by ({', '.join(labels)})" if labels else "sum"
    return Query(f"{grouped} (rate({by('', metric)}[$__rate_interval]))", legend or _legend(labels))


def quantile(share: float, metric: str, *labels: str, window: str = "$__rate_interval") -> Query:
    """A quantile of a histogram, named without `_bucket`."""
    grouped = ", ".join(("le", *labels))
    name = f"p{share * 100:g} {_legend(labels)}".strip()
    return Query(
        f"histogram_quantile({share}, sum by ({grouped}) (rate({by('', metric + '_bucket')}[{window}])))", name
    )


def per_version(share: float, metric: str) -> Query:
    """A quantile of what engines measure, by the version that each served at the time."""
    rates = f"rate({by('', metric + '_bucket')}[$__rate_interval])"
    joined = f"{rates} * on (namespace, instance) group_left (version) {VERSION}"
    return Query(
        f"histogram_quantile({share}, sum by (le, version) ({joined}))", f"p{share * 100:g} version {{{{version}}}}"
    )


def _legend(labels: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)
