<?xml version="1.0"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output omit-xml-declaration="yes" indent="yes"/>
  <xsl:template match="@*|node()">
    <xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>
  </xsl:template>
  <!-- virtiofs hands files through memory that the machine shares with its daemon. -->
  <xsl:template match="/domain/memory">
    <xsl:copy-of select="."/>
    <memoryBacking><source type="memfd"/><access mode="shared"/></memoryBacking>
  </xsl:template>
  <xsl:template match="/domain/devices/filesystem">
    <filesystem type="mount" accessmode="passthrough">
      <driver type="virtiofs"/>
      <xsl:copy-of select="source|target"/>
    </filesystem>
  </xsl:template>
  <!-- An emulated CPU has no host to pass through. This one has what today's Python wheels are built for (x86-64-v2), and no
       vector units, which cost more to emulate than they give. -->
  <xsl:template match="/domain[@type='qemu']/cpu">
    <cpu mode="custom" match="exact" check="none"><model fallback="forbid">Nehalem</model></cpu>
  </xsl:template>
  <!-- libvirt's AppArmor profile cannot follow a reference to a pool; it can follow a path. -->
  <xsl:template match="/domain/devices/disk[@type='volume']/@type">
    <xsl:attribute name="type">file</xsl:attribute>
  </xsl:template>
  <xsl:template match="/domain/devices/disk/source[@volume]">
    <source file="POOL-PATH/{@volume}"/>
  </xsl:template>
  <!-- No screen: a console, and its log. -->
  <xsl:template match="/domain/devices/graphics|/domain/devices/video|/domain/devices/audio"/>
  <xsl:template match="/domain/devices">
    <xsl:copy>
      <xsl:apply-templates select="@*|node()"/>
      <serial type="pty"><log file="CONSOLE-LOG" append="on"/></serial>
      <video><model type="none"/></video>
    </xsl:copy>
  </xsl:template>
  <xsl:template match="/domain/devices/disk/driver">
    <xsl:copy><xsl:copy-of select="@*"/><xsl:attribute name="discard">unmap</xsl:attribute></xsl:copy>
  </xsl:template>
</xsl:stylesheet>
