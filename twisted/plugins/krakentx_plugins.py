"""One line per component. A module named here is imported only once its plugin is chosen."""

from twisted.application.service import ServiceMaker

agent = ServiceMaker("KrakenTX agent", "krakentx.agent.tap", "Registry for pulls on one host.", "kraken-agent")
build_index = ServiceMaker("KrakenTX build-index", "krakentx.buildindex.tap", "Tags.", "kraken-build-index")
herd = ServiceMaker("KrakenTX herd", "krakentx.herd.tap", "All central parts in one process.", "kraken-herd")
origin = ServiceMaker("KrakenTX origin", "krakentx.origin.tap", "Keeps blobs and seeds them.", "kraken-origin")
proxy = ServiceMaker("KrakenTX proxy", "krakentx.proxy.tap", "Registry for pushes.", "kraken-proxy")
testfs = ServiceMaker("KrakenTX testfs", "krakentx.testfs.tap", "File server, a stand-in storage.", "kraken-testfs")
tracker = ServiceMaker("KrakenTX tracker", "krakentx.tracker.tap", "Tells peers about each other.", "kraken-tracker")
