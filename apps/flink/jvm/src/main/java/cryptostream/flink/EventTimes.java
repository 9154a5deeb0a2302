package cryptostream.flink;

import java.time.Duration;
import org.apache.flink.api.common.eventtime.TimestampAssigner;
import org.apache.flink.api.common.eventtime.TimestampAssignerSupplier;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkGeneratorSupplier;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.table.data.RowData;

/**
 * Event time and watermark of the rows of {@link RecordSource}, as if the topic held nothing but events.
 *
 * <p>A record that is no event says nothing about event time. So it must not move a watermark, and it must not make its
 * partition count as active either: a partition with nothing but malformed records would hold back every candle.
 */
final class EventTimes implements WatermarkStrategy<RowData> {

    private static final long serialVersionUID = 1L;

    /** Rowtime of a record that is no event; no event is that old. */
    private static final long NO_EVENT = 0;

    private final EventRules rules;
    private final WatermarkStrategy<RowData> ofEvents;

    /**
     * @param delay how far the watermark stays behind the largest event time of the partition
     * @param idleTimeout time without an event after which a partition is not waited for; zero: it always is
     */
    EventTimes(EventRules rules, Duration delay, Duration idleTimeout) {
        this.rules = rules;
        WatermarkStrategy<RowData> bounded = WatermarkStrategy.forBoundedOutOfOrderness(delay);
        this.ofEvents = idleTimeout.isZero() ? bounded : bounded.withIdleness(idleTimeout);
    }

    @Override
    public TimestampAssigner<RowData> createTimestampAssigner(TimestampAssignerSupplier.Context context) {
        return (row, kafkaTimestamp) -> {
            ParsedEvent event = EventParser.ofThread(rules).parse(row.getBinary(RecordSource.VALUE));
            return event.isEvent() ? event.timestampMs() : NO_EVENT;
        };
    }

    @Override
    public WatermarkGenerator<RowData> createWatermarkGenerator(WatermarkGeneratorSupplier.Context context) {
        WatermarkGenerator<RowData> generator = ofEvents.createWatermarkGenerator(context);
        return new WatermarkGenerator<>() {
            @Override
            public void onEvent(RowData row, long timestampMs, WatermarkOutput output) {
                if (timestampMs != NO_EVENT) {
                    generator.onEvent(row, timestampMs, output);
                }
            }

            @Override
            public void onPeriodicEmit(WatermarkOutput output) {
                generator.onPeriodicEmit(output);
            }
        };
    }
}
