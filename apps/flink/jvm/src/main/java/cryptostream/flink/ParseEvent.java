package cryptostream.flink;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.TableFunction;

/**
 * SQL: exactly one row per Kafka value. A table function, because a scalar one would be evaluated again for every
 * column read from its result.
 */
@FunctionHint(
        output =
                @DataTypeHint(
                        value =
                                "ROW<reason STRING, event_id STRING, symbol STRING, price DOUBLE, `user` STRING,"
                                        + " `timestamp` BIGINT, produced_at BIGINT>",
                        bridgedTo = RowData.class))
public class ParseEvent extends TableFunction<RowData> {

    private static final int COLUMNS = 7;

    private final EventRules rules;

    public ParseEvent(EventRules rules) {
        this.rules = rules;
    }

    public void eval(@DataTypeHint("BYTES") byte[] value) {
        ParsedEvent event = EventParser.ofThread(rules).parse(value);
        GenericRowData row = new GenericRowData(COLUMNS);
        if (event.isEvent()) {
            row.setField(1, StringData.fromString(event.eventId()));
            row.setField(2, StringData.fromString(event.symbol()));
            row.setField(3, event.price());
            row.setField(4, StringData.fromString(event.user()));
            row.setField(5, event.timestampMs());
            row.setField(6, event.producedAtUs());
        } else {
            row.setField(0, StringData.fromString(event.reason()));
        }
        collect(row);
    }
}
