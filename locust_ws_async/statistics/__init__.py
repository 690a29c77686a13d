"""From operations to Locust's numbers.

buckets       how finely Locust's histograms tell times apart
percentiles   percentiles of a row, exactly as far as its histogram goes
last_reports  the master waits for the last report of each worker
unread        how long bytes lay unread in each process
end_of_run    what is printed, and written beside the CSV files, when a run is over
"""

from .buckets import use_locust_buckets
from .percentiles import percentile

__all__ = ["percentile", "use_locust_buckets"]
