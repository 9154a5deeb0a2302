package cryptostream.flink;

/**
 * A Kafka value after validation: {@code reason} is null for an event, else all other components are meaningless.
 *
 * @param reason a reason of docs/contract.md, or null
 * @param timestampMs event time, epoch milliseconds
 * @param producedAtUs epoch microseconds
 */
record ParsedEvent(
        String reason,
        String eventId,
        String symbol,
        double price,
        String user,
        long timestampMs,
        long producedAtUs) {

    static ParsedEvent rejected(String reason) {
        return new ParsedEvent(reason, null, null, 0, null, 0, 0);
    }

    boolean isEvent() {
        return reason == null;
    }
}
