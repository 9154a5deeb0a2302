package cryptostream.flink;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.functions.ScalarFunction;

/** SQL: event time of a Kafka value in epoch milliseconds, 0 for a value that is no event. */
public class EventTimeMs extends ScalarFunction {

    private final EventRules rules;

    public EventTimeMs(EventRules rules) {
        this.rules = rules;
    }

    /** 0 and not NULL, since a rowtime must not be null; it is too small to move a watermark. */
    public long eval(@DataTypeHint("BYTES") byte[] value) {
        return EventParser.ofThread(rules).parse(value).timestampMs();
    }
}
