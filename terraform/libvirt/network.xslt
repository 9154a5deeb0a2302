<?xml version="1.0"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output omit-xml-declaration="yes" indent="yes"/>
  <xsl:template match="@*|node()">
    <xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>
  </xsl:template>
  <!-- The lab's own, so that a plan can tell this network from another one of the same name. -->
  <xsl:template match="/network/name">
    <xsl:copy-of select="."/>
    <uuid>NETWORK-UUID</uuid>
  </xsl:template>
  <xsl:template match="/network/uuid"/>
</xsl:stylesheet>
