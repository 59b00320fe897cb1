"""geoseg monitor: what fields look like from date to date."""

from geoseg.monitoring.anomaly import AnomalyRules as AnomalyRules
from geoseg.monitoring.monitor import Monitored as Monitored
from geoseg.monitoring.monitor import monitor as monitor
from geoseg.monitoring.options import MonitorOptions as MonitorOptions
from geoseg.monitoring.season import SeasonRules as SeasonRules
