"""geoseg suggest: which squares of unlabelled scenes are worth labelling next."""

from geoseg.suggestion.suggest import Suggested as Suggested
from geoseg.suggestion.suggest import Wanted as Wanted
from geoseg.suggestion.suggest import suggest as suggest
