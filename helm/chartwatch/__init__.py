"""Alert rules and dashboards beside the chart: made, and checked by Prometheus's own tools.

`rules` reads the alerts of helm/onstream/rules, `boards` makes helm/onstream/dashboards, `checks` says what is wrong
with either, `debian` fetches promtool. `make tools` fetches, `make dashboards` writes.
"""
