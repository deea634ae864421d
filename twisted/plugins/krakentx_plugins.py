"""One plugin per component. A module named here is imported only once its plugin is chosen."""

from twisted.application.service import ServiceMaker

agent = ServiceMaker(
    "KrakenTX agent", "krakentx.agent.tap", "KrakenTX: the registry to pull from, on every host.", "kraken-agent"
)
build_index = ServiceMaker(
    "KrakenTX build-index", "krakentx.buildindex.tap", "KrakenTX: what every tag points at.", "kraken-build-index"
)
herd = ServiceMaker("KrakenTX herd", "krakentx.herd.tap", "KrakenTX: all central parts in one process.", "kraken-herd")
origin = ServiceMaker(
    "KrakenTX origin", "krakentx.origin.tap", "KrakenTX: keeps blobs and gives them to peers.", "kraken-origin"
)
proxy = ServiceMaker("KrakenTX proxy", "krakentx.proxy.tap", "KrakenTX: the registry to push to.", "kraken-proxy")
testfs = ServiceMaker(
    "KrakenTX testfs", "krakentx.testfs.tap", "KrakenTX: a file server in place of real storage.", "kraken-testfs"
)
tracker = ServiceMaker(
    "KrakenTX tracker", "krakentx.tracker.tap", "KrakenTX: tells peers about each other.", "kraken-tracker"
)
